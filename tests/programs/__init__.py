"""Generated workflow programs, and the proof that their journals replay exactly.

``generate`` makes a program as a JSON tree, ``flows`` runs one as a workflow, ``driver`` answers it in a random
order with restarts, ``proof`` replays what was recorded (also in another process), ``shrink`` makes a failing
program small. One seed gives one program and one history.
"""
