"""The stages of the flights' data for DVC: what they do, what is expected of the data, what a version is made of."""
