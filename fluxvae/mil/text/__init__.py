"""Programs as text (MIL): the document, its reader and its writer."""
