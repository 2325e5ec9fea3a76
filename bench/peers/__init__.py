"""Ours beside DBOS, Absurd and Restate: the same work, on the same Postgres, in one sitting.

The rule: nothing of a peer is imported here. Each has an environment of its own (``install``) and a script in
``scripts`` that does as it is told (``engine``), each of its settings (``settings``) a fresh database, and all are
measured from outside, alike (``measure``, ``processes``). Figures are kept as JSON; tables (``table``) and plots
(``svg``) are made from it (``page``). What cannot be installed, fails or is too slow is a line that says so.
"""
