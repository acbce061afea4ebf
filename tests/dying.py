"""Source for the scripts of tests that kill a process between two moves of files."""

KILLED_AT = """
import os
from pathlib import Path

def killed_at(moves, work):
    # whether a child that calls ``work`` dies: it does before so many moves of files or folders
    child = os.fork()
    if not child:
        left = [moves]
        def dying(move):
            def step(self, target):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return move(self, target)
            return step
        Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
        work()
        os._exit(0)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert died in (0, 9), died
    return died == 9
"""
