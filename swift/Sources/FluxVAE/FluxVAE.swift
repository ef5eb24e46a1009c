/// Placeholder until branch app fills this target.
enum FluxVAEPlaceholder {}
