#!/usr/bin/env bash
# Copyright (c) 2026, the cypher.rollback authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Section 4.1 of the document that the collection replaces, word for word but for the first line, BACKUP_DIR and TMPDIR.
# rollback.sh - Generic rollback script
# Usage: ./rollback.sh <migration_version>

set -e

MIGRATION_VERSION=$1
DB_HOST="${DB_HOST:-localhost}"
DB_PORT="${DB_PORT:-5432}"
DB_NAME="${DB_NAME:-cypher_erp}"
DB_USER="${DB_USER:-postgres}"
BACKUP_DIR="${BACKUP_DIR:-/var/backups/cypher-erp}"
TIMESTAMP=$(date +%Y%m%d_%H%M%S)

# Colors for output
RED='\033[0;31m'
GREEN='\033[0;32m'
YELLOW='\033[1;33m'
NC='\033[0m' # No Color

log_info() {
    echo -e "${GREEN}[INFO]${NC} $1"
}

log_warn() {
    echo -e "${YELLOW}[WARN]${NC} $1"
}

log_error() {
    echo -e "${RED}[ERROR]${NC} $1"
}

# Validate input
if [ -z "$MIGRATION_VERSION" ]; then
    log_error "Migration version required"
    echo "Usage: $0 <migration_version>"
    exit 1
fi

# Check if migration exists
MIGRATION_FILE="migrations/${MIGRATION_VERSION}-*.sql"
if ! ls $MIGRATION_FILE 1> /dev/null 2>&1; then
    log_error "Migration file not found: $MIGRATION_FILE"
    exit 1
fi

# Create backup directory
mkdir -p "$BACKUP_DIR"

# Pre-rollback backup
log_info "Creating pre-rollback backup..."
pg_dump -h "$DB_HOST" -p "$DB_PORT" -U "$DB_USER" -d "$DB_NAME" \
    > "$BACKUP_DIR/backup_before_rollback_${MIGRATION_VERSION}_${TIMESTAMP}.sql"

if [ $? -ne 0 ]; then
    log_error "Backup failed! Aborting rollback."
    exit 1
fi

log_info "Backup created: $BACKUP_DIR/backup_before_rollback_${MIGRATION_VERSION}_${TIMESTAMP}.sql"

# Extract DOWN script from migration file
log_info "Extracting DOWN script..."
DOWN_FILE="${TMPDIR:-/tmp}/rollback_${MIGRATION_VERSION}_${TIMESTAMP}.sql"

# Extract lines after "DOWN (Rollback)" marker
awk '/-- DOWN \(Rollback\)/,0' $MIGRATION_FILE > $DOWN_FILE

# Execute rollback
log_info "Executing rollback for migration $MIGRATION_VERSION..."
psql -h "$DB_HOST" -p "$DB_PORT" -U "$DB_USER" -d "$DB_NAME" -f "$DOWN_FILE"

if [ $? -ne 0 ]; then
    log_error "Rollback failed!"
    log_error "Backup available at: $BACKUP_DIR/backup_before_rollback_${MIGRATION_VERSION}_${TIMESTAMP}.sql"
    exit 1
fi

# Cleanup
rm -f "$DOWN_FILE"

log_info "Rollback completed successfully!"
log_info "Backup preserved at: $BACKUP_DIR/backup_before_rollback_${MIGRATION_VERSION}_${TIMESTAMP}.sql"
