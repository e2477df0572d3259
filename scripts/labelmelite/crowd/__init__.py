"""How people who are no colleagues come in: study links, MTurk, file bundles; and how they are paid."""
