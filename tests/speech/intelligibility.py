"""How well what was heard can be understood: STOI, from 0 to 1, of words that were said.

Each word is looked for near the place where it must be, since a jitter buffer plays a little faster or slower at times; then
all words are judged together. Arguments: the words one after the other, what was heard (both raw, 16 bit, 48 kHz), the length
of each word in samples, with commas. Prints the measure, and where each word was found, in samples.
"""
import sys

import numpy as np
from pystoi import stoi
from scipy.signal import correlate

RATE = 48_000
# How far a word may be from where the first guess has it.
NEAR = RATE // 2


def place(word, heard):
    """Where the word is most alike to what was heard, whatever the level."""
    both = correlate(heard, word, mode="valid", method="fft")
    total = np.concatenate([[0.0], np.cumsum(heard**2)])
    energy = total[len(word) :] - total[: -len(word)]
    return int(np.argmax(both / np.sqrt(np.maximum(energy, 1e-6))))


def main():
    said, heard = (np.fromfile(path, dtype="<i2").astype(float) / 32768 for path in sys.argv[1:3])
    lengths = [int(length) for length in sys.argv[3].split(",")]
    around = np.zeros(NEAR)
    heard = np.concatenate([around, heard, np.zeros(max(0, len(said) - len(heard))), around])
    start, at, found, places = place(said, heard), 0, [], []
    for length in lengths:
        near = max(0, start + at - NEAR)
        where = near + place(said[at : at + length], heard[near : start + at + length + NEAR])
        found.append(heard[where : where + length])
        places.append(where - NEAR)
        at += length
    print(stoi(said[:at], np.concatenate(found), RATE), *places)


main()
