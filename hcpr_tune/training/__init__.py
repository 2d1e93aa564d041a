"""The science: losses, attacks, models, data and the training loop. Knows nothing of Ray, Optuna or the command line."""
