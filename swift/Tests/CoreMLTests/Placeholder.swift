// Placeholder: the tests of this target come with the implementation.
