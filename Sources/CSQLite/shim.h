#include <sqlite3.h>

// What Swift cannot call: a function of any number of arguments.
// A name in double quotes that is no column's is an error, and not a text.
static inline int arena_sqlite_refuse_quoted_texts(sqlite3 *database) {
    int code = sqlite3_db_config(database, SQLITE_DBCONFIG_DQS_DDL, 0, (int *)0);
    return code == SQLITE_OK ? sqlite3_db_config(database, SQLITE_DBCONFIG_DQS_DML, 0, (int *)0) : code;
}
