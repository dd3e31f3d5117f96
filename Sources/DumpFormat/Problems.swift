/// What is wrong with a file, in words. A file may be wrong in a million places: then the first of them are told, and how many
/// more there are.
struct Problems {
    private static let mostTold = 500
    private var told: [String] = []
    private var untold = 0

    var isEmpty: Bool { told.isEmpty }
    var all: [String] { untold == 0 ? told : told + ["\(untold) more of these"] }

    mutating func append(_ problem: @autoclosure () -> String) {
        if told.count < Self.mostTold { told.append(problem()) } else { untold += 1 }
    }
}
