"""Training of CryptoDL's networks: data, networks, fitting and export."""
