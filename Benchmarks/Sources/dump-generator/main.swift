import DumpFormat
import Glibc

// A large dump through the real writer, to try a reader with.
//
//     dump-generator BUFFERS PATH [GENERATION]
//
// A dump of a later generation is of the same process, a minute later for each.

let arguments = CommandLine.arguments.dropFirst()
guard arguments.count >= 2, let buffers = Int(arguments[1]), buffers > 0,
    let generation = arguments.count > 2 ? UInt64(arguments[3]) : 0
else {
    let usage = "usage: dump-generator BUFFERS PATH [GENERATION]\n"
    write(STDERR_FILENO, usage, usage.utf8.count)
    exit(64)
}
let path = arguments[2]
let slash = path.lastIndex(of: "/")
let folder = slash.map { String(path[..<$0]) } ?? "."

func generate(_ name: String, in directory: String) throws -> String {
    let file = try DumpFile.create(directory: directory, name: name, replacing: true)
    try DumpWriter(sink: file.sink).write(SyntheticBroker(buffers: buffers, generation: generation).make())
    return try file.commit()
}

print(try generate(slash.map { String(path[path.index(after: $0)...]) } ?? path, in: folder.isEmpty ? "/" : folder))
