"""Training of CryptoDL's networks: data, networks, fitting, calibration and export."""
