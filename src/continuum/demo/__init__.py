"""The demo: take stock of this Python, or of a folder, with a child for each package, and survive kills.

    packages   what there is to check
    files      which files a package has, and whether they are as they should be
    flows      the workflows and activities
    ledger     what the activities write down themselves, and the comparison
    journals   what the journals have recorded
    processes  the workers, killed and replaced
    drive      one demo from start to verdict
    show       what people see of it

The rule: it uses what every program can use, a client and ``continuum worker``, and nothing is staged: workers are
killed by SIGKILL wherever they are.
"""

from continuum.demo.drive import Figures, Options, run_demo

__all__ = ["Figures", "Options", "run_demo"]
