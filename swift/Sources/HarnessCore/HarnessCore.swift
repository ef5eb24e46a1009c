/// Placeholder until branch core fills this target.
enum HarnessCorePlaceholder {}
