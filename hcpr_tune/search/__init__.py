"""What a search decides and remembers, without Ray and without a clock.

`spec` is what a study file says, `record` what happened, `scheduling` what runs next, `suggestion` which values, `storage` where it lies.
May import `training` and `common`.
"""
