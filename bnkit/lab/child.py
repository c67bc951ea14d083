"""A process beside this one, spoken to by its stdin and stdout; what it says on stderr is kept for the end."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence

# The variables by which thread pools are sized when the libraries are imported.
_POOLS = ("BNKIT_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PJRT_NPROC")


class Child:
    """From its start until `close`; `stdout` is read as bytes."""

    def __init__(self, command: Sequence[str], threads: int, **environment: str) -> None:
        """threads: of each library's pool. environment: variables besides this process's."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | dict.fromkeys(_POOLS, str(threads)) | environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self.stdout = self._process.stdin, self._process.stdout

    def send(self, message: bytes) -> None:
        """Nothing happens where the process has ended: the end of `stdout` tells."""
        with contextlib.suppress(OSError):
            self._stdin.write(message)
            self._stdin.flush()

    def end(self) -> str:
        """Wait for the end of a process that closed its stdout; its exit code and the last line of stderr."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"ended with exit code {code}" + (f": {said[-1]}" if said else "")

    def close(self) -> None:
        """End the process, whatever it does; a second time does nothing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self.stdout, self._errors):
            with contextlib.suppress(OSError):  # what could not be written any more
                stream.close()
