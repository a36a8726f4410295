//! Whether an archive or a program file is whole, told from its bytes.
