"""The training program, `python -m train`: one room for each thing it does.

From the top down, each importing only those below it: `cli` (the commands), `study` (many runs that
answer one question), `bench` and `loop` (what a step costs, and training), `report` (what was
trained, measured and drawn), `run` (the folder of a run), `learn` (a step of training), `presets`
and `config` (what decides a run's numbers), `data`, `distributed` (several processes) and `system`.
"""
