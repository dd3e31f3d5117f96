/// A function as a thread's stack names it.
struct FunctionName: Equatable {
    /// As the compiler or the linker knows it, demangled.
    let full: String
    /// The module it is of; empty for C.
    let module: String
    /// What people call it: `SubscriptionTrie.insert`.
    let short: String

    init(mangled: String) { self.init(demangled: Self.demangle(mangled), isSwift: mangled.hasPrefix("$s")) }

    init(demangled: String, isSwift: Bool) {
        full = demangled
        guard isSwift else {
            (module, short) = ("", demangled)
            return
        }
        var text = Self.inner(demangled[...])
        // Extensions name the module that has them, and then the type with its own.
        var extending: Substring?
        if text.hasPrefix("(extension in "), let end = text.firstIndex(of: ")") {
            extending = text[text.index(text.startIndex, offsetBy: 14)..<end]
            text = text[text.index(after: end)...].drop { $0 == ":" }
        }
        let plain = Self.withoutDiscriminators(text)
        let path = plain.prefix { $0 != "(" && $0 != "<" && $0 != " " }
        let parts = path.split(separator: ".", omittingEmptySubsequences: true)
        module = String(extending ?? parts.first ?? "")
        short = parts.count > 1 ? parts.dropFirst().joined(separator: ".") : String(path)
    }

    /// Of a closure, a specialization and the like: the function it belongs to.
    private static func inner(_ text: Substring) -> Substring {
        var text = text
        while true {
            if text.hasPrefix("closure #") || text.hasPrefix("implicit closure #"), let rest = after(" in ", text) {
                text = rest
            } else if text.hasPrefix("generic specialization <")
                || text.hasPrefix("function signature specialization <")
                || text.hasPrefix("generic partial specialization <"), let rest = after(" of ", text)
            {
                text = rest
            } else if let word = words.first(where: { text.hasPrefix($0) }) {
                text = text.dropFirst(word.count)
            } else {
                return text
            }
        }
    }

    private static let words = [
        "partial apply forwarder for ", "merged ", "static ", "specialized ", "dispatch thunk of ", "@objc ",
        "protocol witness for ",
    ]

    /// What follows the first `separator` that is in no brackets.
    private static func after(_ separator: String, _ text: Substring) -> Substring? {
        var depth = 0
        var place = text.startIndex
        while place < text.endIndex {
            let rest = text[place...]
            if depth == 0, rest.hasPrefix(separator) { return rest.dropFirst(separator.count) }
            // Not the arrow of a function's type.
            if rest.hasPrefix("->") {
                place = text.index(place, offsetBy: 2)
                continue
            }
            if "(<[".contains(text[place]) { depth += 1 }
            if ")>]".contains(text[place]) { depth -= 1 }
            place = text.index(after: place)
        }
        return nil
    }

    /// `(Tree in _AB12).grow` as `Tree.grow`.
    private static func withoutDiscriminators(_ text: Substring) -> String {
        var result = ""
        var rest = text
        while let start = rest.firstIndex(of: "(") {
            let inside = rest[rest.index(after: start)...]
            guard let separator = after(" in _", inside), let end = separator.firstIndex(of: ")"),
                separator[..<end].allSatisfy(\.isHexDigit)
            else { break }
            result += rest[..<start] + inside.prefix(inside.count - separator.count - 5)
            rest = separator[separator.index(after: end)...]
        }
        return result + rest
    }

    /// Modules that are not the program, but what it is made with.
    private var isProgram: Bool {
        !module.isEmpty && !module.hasPrefix("NIO") && !module.hasPrefix("_") && !module.hasPrefix("Foundation")
            && !["Swift", "Dispatch", "Synchronization", "DequeModule", "HashTreeCollections", "SQLite"].contains(
                module)
    }

    /// The innermost function that is the program's own, or else the innermost; empty where there is none.
    static func place(of stack: [FunctionName]) -> String {
        (stack.first(where: \.isProgram) ?? stack.first)?.short ?? ""
    }

    private static func demangle(_ name: String) -> String {
        guard name.hasPrefix("$s"), let text = swiftDemangle(name, name.utf8.count, nil, nil, 0) else { return name }
        defer { text.deallocate() }
        return String(cString: text)
    }
}

/// Of the standard library.
@_silgen_name("swift_demangle")
private func swiftDemangle(
    _ name: UnsafePointer<CChar>?, _ length: Int, _ target: UnsafeMutablePointer<CChar>?,
    _ targetSize: UnsafeMutablePointer<Int>?, _ flags: UInt32
) -> UnsafeMutablePointer<CChar>?
