"""The verdict on a study: finalists trained again on fresh seeds, strong attacks, statistics, one look at the test images, a model to take away."""
