"""Value-preserving forms for Core ML, each proved equal to the plain module in the tests."""
