"""The values of new trials: initial points, Optuna's samplers, priors from earlier studies.

May import `search.record`, `search.spec` and `common`; `registry` is imported by `search.spec`, which checks names.
"""
