"""What tests of several folders share: invented sweeps, small models, servers, drivers and places."""
