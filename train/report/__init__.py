"""Reports on trained networks and on data: evaluation, predictions, a look inside, figures."""
