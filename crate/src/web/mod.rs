//! The face that JavaScript sees: it converts, nothing else.
