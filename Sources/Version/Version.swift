/// The version of the programs, of the dumps that they write, and of the packages that are made of them: it stands here and
/// nowhere else. scripts/version.sh reads it from here.
public let programVersion = "0.1.0"
