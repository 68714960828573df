"""Target models: one file per architecture, each a :class:`mibench.model.Classifier` built from the input's facts."""
