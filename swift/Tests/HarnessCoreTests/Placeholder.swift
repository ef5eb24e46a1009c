// Placeholder: the tests of this target come with its branch.
