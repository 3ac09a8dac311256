//! What carries a class of work out: the `Runner` contract, its embedded backends, a scriptable fake.
