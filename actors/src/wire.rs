//! Shapes that cross the village's border: shared by the outgoing providers and the edge.

pub mod openai;
