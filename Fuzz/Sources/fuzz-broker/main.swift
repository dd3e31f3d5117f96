import Broker
import Foundation

/// Which kind of input: the variable FUZZ_INPUT.
private let input: ForeignInput = {
    let name = ProcessInfo.processInfo.environment["FUZZ_INPUT"] ?? ""
    guard let input = ForeignInput(rawValue: name) else {
        let kinds = ForeignInput.allCases.map(\.rawValue).joined(separator: ", ")
        fatalError("FUZZ_INPUT is one of \(kinds), not '\(name)'")
    }
    return input
}()

/// What else is promised of each kind is in `ForeignInput`.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzBroker(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    input.read(Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
}
