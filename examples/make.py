"""Make the recordings of this directory: four sentences by espeak-ng, in four voices and four formats.

    python examples/make.py        # needs the program espeak-ng (Debian: apt install espeak-ng)

They are here so that the first command of the README has something to run on; nothing is trained or scored on them.
"""

import io
import subprocess
import sys
from pathlib import Path

import soundfile
import soxr

# name, voice, words a minute, pitch (0 to 99), sample rate, sentence
RECORDINGS = [
    ("anna.wav", "en-us+f3", 160, 60, 16000, "Frames in, features out, and every one of them has its time."),
    ("ben.flac", "en-gb+m3", 150, 35, 22050, "An utterance sounds the same alone and in any company."),
    ("clara.ogg", "en-us+f5", 180, 70, 48000, "Kill the run at any moment, and start it again."),
    ("dan.mp3", "en-gb+m7", 140, 25, 8000, "One bad file is one line in the list of errors."),
]


def main() -> int:
    """Write the recordings beside this file."""
    for name, voice, speed, pitch, sample_rate, sentence in RECORDINGS:
        command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", sentence]
        samples, rate = soundfile.read(io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout))
        soundfile.write(Path(__file__).parent / name, soxr.resample(samples, rate, sample_rate), sample_rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
