"""Datasets: one file per dataset, each giving a :class:`mibench.data.Split` from its official on-disk layout."""
