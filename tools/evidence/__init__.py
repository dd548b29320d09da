"""Trains detectors with an evidence map and judges them on sources they did not learn from.

`pack` gathers the crops of `sources` in one archive; `plan` runs experiments on it. There `material` is the
archive on the device, `sampling` draws the batches, with `views`, `codecs` and `pseudo_fakes`, `train` trains
by one of `recipes`, `evaluation` judges on the `folds` left out. `heads` ranks many recipes at once on a
frozen tower, with or without the spare token of `registers`. What came out is in docs/training-log.md.
`ship` makes the shipped checkpoint of it, calibrated by the scores in left-out.csv (`former`: also of what
`plan` wrote when it had detectors of its own); `compare` holds a shipped detector against the recipe on what
neither has seen, `held` writes crops of people held out, `sheet` draws their maps, and `swaps` judges where
evidence lies.
"""
