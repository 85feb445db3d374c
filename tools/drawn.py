"""Draw the pictures of nbs/assets/ that show drawn people

`python tools/drawn.py` writes drawn.jpg, a contact sheet of 4 × 4 consecutive face crops of 112 pixels, and idea.jpg,
an original above its forgery: four frames early in the video and four late in it.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hcil.forgeries import FORGERIES, camera, cut_out, forge, render_recording, sample_forgery, sample_performance, to_video

ASSETS = Path(__file__).resolve().parent.parent / "nbs/assets"
S, FPS, N = 112, 25.0, 80
EARLY, LATE = range(8, 24, 4), range(60, 76, 4)  # frames of the picture of the idea


def people():
    "A person's recording, and another's performance"
    return render_recording("assets/a", "assets/a", N, FPS, 224, 288), sample_performance("assets/b", "assets/b", N, FPS)


def sheet(crops):
    "`[16,S,S,3]` -> `[4*S,4*S,3]`"
    return crops.reshape(4, 4, S, S, 3).permute(0, 2, 1, 3, 4).reshape(4 * S, 4 * S, 3)  # [16,S,S,3] -> [4,S,4,S,3] -> [4*S,4*S,3]


def forged(film, other):
    "The same video with another's face, which jumps and changes halfway"
    plan = FORGERIES["Deepfakes"]
    key = next(k for k in range(99) if sample_forgery(plan, f"assets {k}", N).kind == "both")
    return camera(forge(film, other, plan, sample_forgery(plan, f"assets {key}", N))[0], "assets/a")


def rows(*videos):
    "One row for each video, a white gap between early and late frames"
    gap = torch.full((S, 10, 3), 255, dtype=torch.uint8)
    row = lambda v: torch.cat([*(v[i] for i in EARLY), gap, *(v[i] for i in LATE)], 1)
    between = torch.full((10, 8 * S + 10, 3), 255, dtype=torch.uint8)
    return torch.cat([row(videos[0]), between, row(videos[1])], 0)


def save(picture, name):
    Image.fromarray(np.asarray(picture)).save(ASSETS / name, quality=90, subsampling=0)


def main():
    film, other = people()
    real = cut_out(to_video(film, "assets/a", FPS), film, S)
    save(sheet(real[4:20]), "drawn.jpg")  # she blinks
    save(rows(real, cut_out(forged(film, other), film, S)), "idea.jpg")


if __name__ == "__main__":
    main()
