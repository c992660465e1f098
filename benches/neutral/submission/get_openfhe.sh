#!/usr/bin/env bash
# The harness always calls this. CryptoDL needs no OpenFHE, nor any other library for encryption.
