"""Tables of jobs for the batch, with the files that they name."""

from pathlib import Path

from hallo3_core.examples import PORTRAIT
from sound_files import RATE, voice, write_wav

SECONDS = {"short": 0.2, "middle": 0.28, "long": 0.4, "longest": 1.0}
THREE = "me.png,short.wav,a.mp4"
GOOD = f"{THREE},1,0"


def lay_out(folder: Path) -> None:
    """Write sounds, a portrait and a file that is no picture."""
    for name, seconds in SECONDS.items():
        write_wav(folder / f"{name}.wav", voice(seconds, RATE), RATE)
    (folder / "me.png").write_bytes(PORTRAIT.read_bytes())
    (folder / "broken.png").write_text("no picture")


def table(folder: Path, *rows: str, header="portrait,speech,output,steps,seed") -> Path:
    file = folder / "jobs.csv"
    file.write_text("\n".join((header, *rows)), "utf-8")
    return file
