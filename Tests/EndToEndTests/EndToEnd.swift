import TestSupport
internal import Testing

/// All end-to-end specifications. One after the other: each has a broker that uses every core.
@Suite(.serialized, .mayBlock) enum EndToEnd {}
