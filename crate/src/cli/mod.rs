//! The command line: arguments in, agents called, text or JSON out.
