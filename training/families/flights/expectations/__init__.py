"""What is expected of the flights' data, in Great Expectations' words; read in the environment for data alone."""
