"""An established library's SASRec on the engine's own split, full ranking, seen items excluded.

    export.py          the split as arrays, without what the test asks for
    settings.py        how the peer is trained, and who says so
    environment.py     the peer's virtual environment
    requirements.txt   what is in it
    sasrec.py          trains and answers, in that environment
    report.py          judges the answers here, with the engine's metrics
    __main__.py        all of it

The peer runs in an environment of its own because its library wants an older numpy and pandas than the engine.
"""
