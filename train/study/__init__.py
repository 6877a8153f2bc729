"""Many runs that answer one question: `compare` networks, or hold a `trial` of a paper's `claims`.

Both keep what is done, go on after an interruption, and leave tables, figures and `results.json`.
"""
