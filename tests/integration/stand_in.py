"""Processes that behave, crash or hang in place of the stack's own; run by path, with a behaviour as argument."""

import signal
import subprocess
import sys
import threading

from mdtasks.observe.ready import tell_ready

behaviour = sys.argv[1]
print(f"{behaviour} starts", flush=True)
if behaviour == "crashing":
    sys.exit(3)
if behaviour == "pool":  # a leader whose child would outlive it
    subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "hanging" else lambda *_: sys.exit(0))
tell_ready()
while True:
    threading.Event().wait(60)
