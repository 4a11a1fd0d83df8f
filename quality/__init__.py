"""How well unface does in use: reports of missed and false faces, and trials of another profile.

All of it is opt-in and stays in one SQLite file on this machine. `places` and `store` keep reports,
`export` makes a labelled set of them; `trials` counts what two profiles do, `comparison` says which
is better.
"""
