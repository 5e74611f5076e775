"""Secure aggregation: a server learns the sum of the clients' vectors and nothing else about them.

`client` and `server` are the two sides of a round as state machines that do no input or output: a message goes in,
a message comes out, so a simulation, the tests and the network run the same code.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4 (the
variant with signatures and a consistency round); Bell et al., "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020 (the sparse graph of neighbours). `split_trust` is additive sharing between
two servers (Corrigan-Gibbs and Boneh, "Prio", NSDI 2017, section 2).

The model and everything else that must be the same at all clients is part of every key (Pasquini et al., "Eluding
Secure Aggregation in Federated Learning via Model Inconsistency", CCS 2022). A secure sum hides the summands, not
the sum: what the sum itself tells is the subject of differential privacy. That a client's own vector is what it
should be is not proven.
"""
