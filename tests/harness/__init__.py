"""What tests of more than one room share: an account in sync without the rest of the service, and the comparison with
the server that every promise ends in."""
