// The tags of the format, after "HPROF Agent" in the JDK's sources (heapDumper.cpp has the same list above its code).

/// Records of the file.
enum RecordTag {
    static let string: UInt8 = 0x01
    static let loadClass: UInt8 = 0x02
    static let heapDump: UInt8 = 0x0C
    static let heapDumpSegment: UInt8 = 0x1C
    static let heapDumpEnd: UInt8 = 0x2C
    /// Tag, four bytes of time, four bytes of length.
    static let headerBytes = 9
}

/// Sub-records of a heap dump record.
enum HeapTag {
    static let rootJNIGlobal: UInt8 = 0x01
    static let rootJNILocal: UInt8 = 0x02
    static let rootJavaFrame: UInt8 = 0x03
    static let rootNativeStack: UInt8 = 0x04
    static let rootStickyClass: UInt8 = 0x05
    static let rootThreadBlock: UInt8 = 0x06
    static let rootMonitorUsed: UInt8 = 0x07
    static let rootThreadObject: UInt8 = 0x08
    static let classDump: UInt8 = 0x20
    static let instance: UInt8 = 0x21
    static let objectArray: UInt8 = 0x22
    static let primitiveArray: UInt8 = 0x23
    static let rootUnknown: UInt8 = 0xFF
    // Android's.
    static let rootInternedString: UInt8 = 0x89
    static let rootFinalizing: UInt8 = 0x8A
    static let rootDebugger: UInt8 = 0x8B
    static let rootReferenceCleanup: UInt8 = 0x8C
    static let rootVMInternal: UInt8 = 0x8D
    static let rootJNIMonitor: UInt8 = 0x8E
    static let unreachable: UInt8 = 0x90
    static let primitiveArrayWithoutData: UInt8 = 0xC3
    static let heapInfo: UInt8 = 0xFE

    /// Whether it is the tag of a sub-record.
    static func isKnown(_ tag: UInt8) -> Bool {
        switch tag {
        case rootJNIGlobal...rootThreadObject, classDump...primitiveArray, rootInternedString...rootJNIMonitor,
            unreachable, primitiveArrayWithoutData, heapInfo, rootUnknown:
            true
        default: false
        }
    }
}

/// The kinds of roots that a HotSpot JVM writes into every heap dump, whatever the program does: a dump without one of them is
/// another writer's, and lacks what such roots lead to.
public enum RootKind: UInt8, Sendable, CaseIterable {
    case jniGlobal = 0x01
    case javaFrame = 0x03
    case stickyClass = 0x05
    case threadObject = 0x08

    /// As the format calls it.
    public var name: String {
        switch self {
        case .jniGlobal: "JNI_GLOBAL"
        case .javaFrame: "JAVA_FRAME"
        case .stickyClass: "STICKY_CLASS"
        case .threadObject: "THREAD_OBJECT"
        }
    }
}

/// The type of a field or of an array's elements.
public enum BasicType: UInt8, Sendable {
    case object = 2
    case boolean = 4
    case char = 5
    case float = 6
    case double = 7
    case byte = 8
    case short = 9
    case int = 10
    case long = 11

    @inline(__always) func bytes(_ idSize: Int) -> Int {
        switch self {
        case .object: idSize
        case .boolean, .byte: 1
        case .char, .short: 2
        case .float, .int: 4
        case .double, .long: 8
        }
    }
}
