"""The workflow that gives a video other words, for `graphs.py`."""

from parts import FILES, LOADED, Workflow, animate, encode_speech, note, redub, save, turn_sound

REDUBBING = {
    "9 New words": Workflow(
        {
            **LOADED,
            "note": note(
                0,
                560,
                "A video gets other words. Redub makes only the mouth anew, and puts it back into "
                "the frames. Here the video is that of Animate Portrait, with the first half of "
                "the speech, and the other words are its second half. To use a video of your "
                "own, connect Load Video to frames in the place of Animate Portrait.\n\n" + FILES,
            ),
            **{f"half {i}": turn_sound(i, 1, 2.56) for i in range(2)},
            "speech": encode_speech("half 0", 2),
            "words": encode_speech("half 1", 2),
            "animate": animate(3),
            "redub": redub("animate.3", 4, speech="words"),
            "save": save("redub.3", 5),
        },
    ),
}
