"""The comparison of capsjax with its references, stage by stage.

`subjects` lists what is compared; `runner` compares it, in `batch` and `training`, and makes a
`comparison.Result`, which `report` shows. `pairs` makes two networks with the same weights.
"""
