"""The decisions and the record of a search, without Ray and without a clock.

`spec` is the study file, `record` what happened, `scheduling` what runs next, `suggestion` with which values, `storage`
where it is kept. May import `training` and `common`.
"""
